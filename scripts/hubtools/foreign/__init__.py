"""The one place where files of strangers are opened, read and checked: checkpoints, configurations, recipes, cards."""
