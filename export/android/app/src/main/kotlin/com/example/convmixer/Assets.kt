package com.example.convmixer

import android.content.Context
import org.json.JSONObject

const val MODEL_FILE = "model.tflite"

/** The app's assets from `export/to_android.py`. */
class Assets(private val context: Context) {
    val model = ModelDescription.parse(text("model.json"))
    val golden = Golden.parse(text("golden.json"))

    /** Computes the model's input pixels from the self-test's image. */
    fun goldenInput() = model.pixelsOf(readPhoto(model.turn) { open("golden.png") })

    /** Reads the expected pixels. */
    fun goldenPixels(): IntArray {
        val photo = readPhoto(turn = false) { open("golden_pixels.png") }
        // The transform does not change a square image of this size.
        return evaluationPixels(photo, photo.width, 1.0)
    }

    private fun open(name: String) = context.assets.open(name)

    private fun text(name: String) = open(name).use { it.readBytes().decodeToString() }
}

/**
 * The content of `model.json`.
 *
 * @param imageSize Side of the model's images, in pixels.
 * @param cropFraction Fraction of a photo's shorter side to keep.
 * @param turn Whether photos are rotated as their EXIF says.
 */
class ModelDescription(val imageSize: Int, val cropFraction: Double, val turn: Boolean) {
    /** Crops the model's square, in the model's size or another. */
    fun pixelsOf(photo: Photo, size: Int = imageSize) = evaluationPixels(photo, size, cropFraction)

    companion object {
        /** Parses the text of `model.json`. */
        fun parse(text: String): ModelDescription {
            val json = JSONObject(text)
            return ModelDescription(
                json.getInt("image_size"),
                json.getDouble("crop_fraction"),
                json.optString("orientation", "exif") == "exif",
            )
        }
    }
}
