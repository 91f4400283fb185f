"""Events that leave the machine: sinks, and the process that feeds them from the journal."""
