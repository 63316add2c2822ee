"""One HTML file that shows saved results: a module for each kind of result, and how the page is drawn."""
