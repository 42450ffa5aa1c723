"""Pictures of many forms, and helpers to encode and transform them."""

import io

import numpy as np
from PIL import Image, ImageCms

from stages.schema.kinds import image

SIZE = {"height": 6, "width": 9}


GRAY, COLOR = SIZE | {"channels": 1}, SIZE | {"channels": 3}


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def facts(value):
    return {name: column.item() for name, column in image.facts([value]).items()}


def pixels(value, fitted=COLOR):
    return image.transform([value], fitted)[0]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RGB = Image.fromarray(noise(6, 9, 3))


ANIMATION = [Image.fromarray(noise(6, 9, seed=frame)) for frame in range(3)]


LAB = ImageCms.applyTransform(
    RGB, ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
)


SORTS = {
    "rgb": encoded(RGB),
    "gray": encoded(RGB.convert("L")),
    "jpeg": encoded(RGB, "JPEG"),
    "cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "16 bits": encoded(Image.fromarray(noise(6, 9, dtype=np.uint16))),
    "1 bit": encoded(RGB.convert("1")),
    "float": encoded(RGB.convert("F"), "TIFF"),
    "palette": encoded(RGB.convert("P")),
    "palette, one color clear": encoded(RGB.convert("P"), transparency=3),
    "rgb, one color clear": encoded(RGB, transparency=RGB.getpixel((0, 0))),
    "gray, alpha": encoded(Image.fromarray(noise(6, 9, 2))),
    "rgb, alpha": encoded(Image.fromarray(noise(6, 9, 4))),
    "animation": encoded(ANIMATION[0], "GIF", save_all=True, append_images=ANIMATION[1:]),
    "on its side": encoded(RGB, "JPEG", exif=turned(6)),
    "on its side, TIFF": encoded(RGB, "TIFF", exif=turned(6)),
    "lab": encoded(LAB, "TIFF"),
    "webp": encoded(RGB, "WEBP", lossless=True),
}
