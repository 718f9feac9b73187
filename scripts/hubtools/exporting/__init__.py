"""Hub folders as files that need neither transformers nor the folder's code: ONNX graphs and exported programs."""
