"""A page to try a learner: label a few texts, adapt, see the answers and why; and one to tick products on and see their
ranking change. Only `page` and `guide_page` are made by gradio."""
