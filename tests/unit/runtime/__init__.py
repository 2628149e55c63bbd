"""Queue, controller and manager."""
