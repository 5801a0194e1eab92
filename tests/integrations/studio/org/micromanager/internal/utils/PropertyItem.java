package org.micromanager.internal.utils;

/** A property of an autofocus method. */
public class PropertyItem {
   public String name;
   public String value;

   public PropertyItem(String name, String value) {
      this.name = name;
      this.value = value;
   }
}
