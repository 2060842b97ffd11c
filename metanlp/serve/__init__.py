"""A page to try a learner: label a few texts, adapt, see the answers and why. Only `page` is made by gradio."""
