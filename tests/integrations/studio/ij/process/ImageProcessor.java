package ij.process;

/** An image of ImageJ. */
public class ImageProcessor {
   private final Object pixels;
   private final int width;
   private final int height;

   public ImageProcessor(Object pixels, int width, int height) {
      this.pixels = pixels;
      this.width = width;
      this.height = height;
   }

   public Object getPixels() {
      return pixels;
   }

   public int getWidth() {
      return width;
   }

   public int getHeight() {
      return height;
   }
}
