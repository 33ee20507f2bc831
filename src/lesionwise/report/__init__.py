"""Pages and pictures, made from the files that the commands wrote."""
