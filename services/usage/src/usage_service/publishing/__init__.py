"""What leaves the usage service: rollups by lane, cuts across all lanes, and the watermark."""
