package com.example.convmixer

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer

// 16 million pixels take 64 MiB. Larger photos are halved as they are decoded,
// which leaves them far above the size of any model's images.
private const val MAX_PIXELS = 1L shl 24

/**
 * Decodes an image file and turns it as its EXIF orientation says.
 *
 * Pixels are taken as they are stored, whatever their colour profile, as in
 * training. What is transparent becomes white.
 *
 * @param open Opens the file; it is called three times.
 * @throws IOException If it is no image, or damaged.
 */
fun readPhoto(open: () -> InputStream): Photo {
    val orientation = open().use(::readOrientation)
    val options = BitmapFactory.Options()
    options.inJustDecodeBounds = true
    open().use { BitmapFactory.decodeStream(it, null, options) }
    if (options.outWidth <= 0 || options.outHeight <= 0) {
        throw IOException("it is not an image of a kind that this phone knows")
    }
    options.inJustDecodeBounds = false
    options.inPreferredConfig = Bitmap.Config.ARGB_8888
    options.inSampleSize = samplingFor(options.outWidth.toLong() * options.outHeight)
    val bitmap = open().use { BitmapFactory.decodeStream(it, null, options) }
        ?: throw IOException("it is damaged")
    return photoOf(inBytes(bitmap), orientation)
}

private fun readOrientation(stream: InputStream): Int = try {
    ExifInterface(stream).getAttributeInt(ExifInterface.TAG_ORIENTATION, Photo.UPRIGHT)
} catch (_: IOException) { // A file without EXIF, to some versions of Android.
    Photo.UPRIGHT
}

private fun samplingFor(pixels: Long): Int {
    var sampling = 1
    while (pixels / (sampling.toLong() * sampling) > MAX_PIXELS) sampling *= 2
    return sampling
}

/** Brings bitmaps of 16 bits a colour to bytes. */
private fun inBytes(bitmap: Bitmap): Bitmap {
    if (bitmap.config == Bitmap.Config.ARGB_8888) return bitmap
    val converted = bitmap.copy(Bitmap.Config.ARGB_8888, false)
        ?: throw IOException("its pixels are of an unknown kind")
    bitmap.recycle()
    return converted
}

private fun photoOf(bitmap: Bitmap, orientation: Int): Photo {
    val bytes = ByteArray(bitmap.byteCount)
    bitmap.copyPixelsToBuffer(ByteBuffer.wrap(bytes))
    if (bitmap.hasAlpha()) putOnWhite(bytes)
    val photo = Photo(bitmap.width, bitmap.height, bytes, bitmap.rowBytes, orientation)
    bitmap.recycle()
    return photo
}
