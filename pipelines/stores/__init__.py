"""Where bytes lie: local disks and object stores, what each of them promises."""
