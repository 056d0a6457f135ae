"""The parts of the page, one file each: a function from the story to a Section."""
