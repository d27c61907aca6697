"""What raw events bear out of a meter's figure: at a cut, now, and what corrections changed in between."""
