package mmcorej;

/** The state of the channel group. */
public class Configuration {
   public final String channel;

   public Configuration(String channel) {
      this.channel = channel;
   }
}
