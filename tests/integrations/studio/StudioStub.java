import bsh.Interpreter;
import ij.process.ImageProcessor;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.UndeclaredThrowableException;
import java.util.Arrays;
import mmcorej.CMMCore;
import org.micromanager.AutofocusPlugin;
import org.micromanager.Studio;

/** Runs a script as Studio's script panel does, then what it reads, one line each: the test is its user. */
public class StudioStub {
   public static void main(String[] arguments) throws Exception {
      CMMCore core = new CMMCore(Integer.parseInt(arguments[1]));
      Studio studio = new Studio();
      Interpreter panel = new Interpreter();
      panel.set("mm", studio);
      panel.set("mmc", core);
      panel.source(arguments[0]);
      PrintStream out = new PrintStream(System.out, true, "UTF-8");
      BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
      for (String line = in.readLine(); line != null; line = in.readLine()) {
         String answer;
         try {
            answer = "ok\t" + done(line.split("\t", -1), studio, core);
         } catch (Exception e) {
            answer = "error\t" + (e instanceof UndeclaredThrowableException ? e.getCause() : e).getMessage();
         }
         out.println(answer.replace("\n", " "));
      }
   }

   private static Object done(String[] words, Studio studio, CMMCore core) throws Exception {
      AutofocusPlugin method = studio.getAutofocusManager().getAutofocusMethod();
      switch (words[0]) {
         case "fullFocus":
            return method.fullFocus();
         case "incrementalFocus":
            return method.incrementalFocus();
         case "name":
            return method.getName();
         case "images":
            return method.getNumberOfImages();
         case "status":
            return method.getVerboseStatus();
         case "score":
            return method.getCurrentFocusScore();
         case "names":
            return String.join(" ", method.getPropertyNames());
         case "properties":
            return Arrays.stream(method.getProperties()).map(item -> item.name + "=" + item.value).toList();
         case "get":
            return method.getPropertyValue(words[1]);
         case "set":
            method.setPropertyValue(words[1], words[2]);
            return "";
         case "computeScore":
            core.setPosition(Double.parseDouble(words[1]));
            core.snapImage();
            return method.computeScore(
                  new ImageProcessor(core.getImage(), (int) core.getImageWidth(), (int) core.getImageHeight()));
         case "continuous":
            method.enableContinuousFocus(true);
            return "";
         case "state":
            return core.state() + " " + studio.suspensions();
         default:
            throw new Exception("what is " + words[0] + "?");
      }
   }
}
