"""From a collection of files to a folder of embeddings that is the same however often the work was interrupted."""
