"""What a run leaves: JSON with where it comes from, tables, plots, pictures, HTML."""
