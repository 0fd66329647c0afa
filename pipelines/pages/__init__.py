"""What people look at: reports, contact sheets, listening pages."""
