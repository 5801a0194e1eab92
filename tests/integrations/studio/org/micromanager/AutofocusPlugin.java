package org.micromanager;

import ij.process.ImageProcessor;
import org.micromanager.internal.utils.PropertyItem;

/** What Studio's autofocus manager calls; the methods of MMPlugin are at the end. */
public interface AutofocusPlugin {
   void initialize();

   void applySettings();

   void saveSettings();

   double fullFocus() throws Exception;

   double incrementalFocus() throws Exception;

   int getNumberOfImages();

   String getVerboseStatus();

   PropertyItem[] getProperties();

   String[] getPropertyNames();

   PropertyItem getProperty(String key) throws Exception;

   void setProperty(PropertyItem p) throws Exception;

   String getPropertyValue(String name) throws Exception;

   void setPropertyValue(String name, String value) throws Exception;

   double getCurrentFocusScore();

   void enableContinuousFocus(boolean enable) throws Exception;

   boolean isContinuousFocusEnabled() throws Exception;

   boolean isContinuousFocusLocked() throws Exception;

   double computeScore(ImageProcessor impro);

   void setContext(Studio studio);

   String getName();

   String getHelpText();

   String getVersion();

   String getCopyright();
}
