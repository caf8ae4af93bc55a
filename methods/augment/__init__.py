"""Views of images. `crops`, `resize` and `draws` are functions of an image and a random stream and run in the loader's
workers; `operators` and `stage` run in batch on the device. `spec` is what the launcher reads: nothing is imported
here.
"""
