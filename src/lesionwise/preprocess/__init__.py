"""Steps from the scan as read to the scan a method sees."""
