package mmcorej;

import java.io.DataInputStream;
import java.io.IOException;
import java.net.Socket;
import java.nio.ByteBuffer;

/** What a script reaches as `mmc`, as far as an autofocus method uses it; camera and stage are the test's. */
public class CMMCore {
   private final Socket microscope;
   private final DataInputStream in;
   private double exposureMs = 20;
   private boolean autoShutter;
   private boolean shutterOpen = true;
   private String channel = "Cy5";
   private Object image;
   private int height;
   private int width;

   public CMMCore(int port) throws IOException {
      microscope = new Socket("127.0.0.1", port);
      in = new DataInputStream(microscope.getInputStream());
   }

   private double ask(String line) throws Exception {
      microscope.getOutputStream().write((line + "\n").getBytes("UTF-8"));
      if (!in.readBoolean()) {
         throw new Exception(in.readUTF());
      }
      return in.readDouble();
   }

   public String state() {
      return exposureMs + " " + channel + " " + autoShutter + " " + shutterOpen;
   }

   public double getPosition() throws Exception {
      return ask("position");
   }

   public void setPosition(double zUm) throws Exception {
      ask("move " + zUm);
   }

   public String getFocusDevice() {
      return "z";
   }

   public void waitForDevice(String label) {}

   public void waitForSystem() {}

   public void snapImage() throws Exception {
      ask("snap " + exposureMs + " " + channel + " " + autoShutter);
      height = in.readInt();
      width = in.readInt();
      short[] pixels = new short[height * width];
      byte[] bytes = new byte[2 * pixels.length];
      in.readFully(bytes);
      ByteBuffer.wrap(bytes).asShortBuffer().get(pixels);
      image = pixels;
   }

   public Object getImage() {
      return image;
   }

   public long getImageHeight() {
      return height;
   }

   public long getImageWidth() {
      return width;
   }

   public long getImageBitDepth() {
      return 16;
   }

   public double getExposure() {
      return exposureMs;
   }

   public void setExposure(double ms) {
      exposureMs = ms;
   }

   public boolean getAutoShutter() {
      return autoShutter;
   }

   public void setAutoShutter(boolean on) {
      autoShutter = on;
      shutterOpen = false;
   }

   public boolean getShutterOpen() {
      return shutterOpen;
   }

   public void setShutterOpen(boolean open) {
      shutterOpen = open;
   }

   public String getChannelGroup() {
      return "Channel";
   }

   public Configuration getConfigGroupState(String group) {
      return new Configuration(channel);
   }

   public void setConfig(String group, String preset) throws Exception {
      if (!preset.equals("DAPI") && !preset.equals("Cy5")) {
         throw new Exception("No preset \"" + preset + "\" in group \"" + group + "\"");
      }
      channel = preset;
   }

   public void waitForConfig(String group, String preset) {}

   public void setSystemState(Configuration state) {
      channel = state.channel;
   }
}
