package com.example.convmixer

import android.content.Context

// What export/to_android.py writes into the app's assets.
const val MODEL_FILE = "model.tflite"
private const val DESCRIPTION_FILE = "model.json"
private const val GOLDEN_FILE = "golden.json"
private const val GOLDEN_IMAGE = "golden.png"
private const val GOLDEN_PIXELS = "golden_pixels.png"

/** Everything that is bundled with the app but the model itself. */
class Assets(private val context: Context) {
    val model = ModelDescription.parse(text(DESCRIPTION_FILE))
    val golden = Golden.parse(text(GOLDEN_FILE))

    /** Reads the image that the self-test classifies. */
    fun goldenImage() = photo(GOLDEN_IMAGE)

    /** Reads what the model should get of it, red, green and blue bytes. */
    fun goldenPixels(): ByteArray {
        val photo = photo(GOLDEN_PIXELS)
        // Of a square image of this size the transform changes nothing.
        return evaluationPixels(photo, photo.width, 1.0)
    }

    private fun photo(name: String) = readPhoto { context.assets.open(name) }

    private fun text(name: String) =
        context.assets.open(name).use { it.readBytes().decodeToString() }
}
