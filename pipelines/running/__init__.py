"""How shards and jobs are run, watched and asked after."""
