"""HumanEval-X: problems, prompts, generations, corrections."""
