package org.micromanager;

/** What a script reaches as `mm`, as far as an autofocus method uses it. */
public class Studio {
   private AutofocusPlugin method;
   private int suspended;

   public Studio getAutofocusManager() {
      return this;
   }

   public void setAutofocusMethod(AutofocusPlugin plugin) {
      method = plugin;
   }

   public AutofocusPlugin getAutofocusMethod() {
      return method;
   }

   public Studio live() {
      return this;
   }

   /** As the real one, calls nest. */
   public void setSuspended(boolean shouldSuspend) {
      suspended += shouldSuspend ? 1 : -1;
   }

   public int suspensions() {
      return suspended;
   }

   public Studio logs() {
      return this;
   }

   public void logError(Exception e) {
      System.err.println("logged: " + e);
   }
}
