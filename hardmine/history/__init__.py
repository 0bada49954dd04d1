"""The record of mining: rounds on disk, replaying them, and explaining an image's weight."""
