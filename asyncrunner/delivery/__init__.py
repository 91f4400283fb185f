"""What the bus is made of; `asyncrunner.bus` puts it together."""
