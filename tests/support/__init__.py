"""What tests and the demo share: real components started as children, and other help that is no test itself."""
