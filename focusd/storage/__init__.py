"""What is kept on disk: files that are old or new and never half, calibrations, claims on hardware."""
