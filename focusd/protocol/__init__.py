"""What goes over the wire: messages, parameters, keys."""
