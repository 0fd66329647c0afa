"""Floor 3: what a person runs. Job files and the command line `genai`; never sees a tensor."""
