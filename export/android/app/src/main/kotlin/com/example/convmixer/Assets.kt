package com.example.convmixer

import android.content.Context
import org.json.JSONObject

const val MODEL_FILE = "model.tflite"

/** What `export/to_android.py` writes into the app's assets. */
class Assets(private val context: Context) {
    val model = ModelDescription.parse(text("model.json"))
    val golden = Golden.parse(text("golden.json"))

    /** Reads the pixels that the model gets of the self-test's image. */
    fun goldenInput() = model.pixelsOf(readPhoto(model.turn) { open("golden.png") })

    /** Reads what they should be. */
    fun goldenPixels(): IntArray {
        val photo = readPhoto(turn = false) { open("golden_pixels.png") }
        // The transform leaves a square image of this size as it is.
        return evaluationPixels(photo, photo.width, 1.0)
    }

    private fun open(name: String) = context.assets.open(name)

    private fun text(name: String) = open(name).use { it.readBytes().decodeToString() }
}

/**
 * What `model.json` says of the model.
 *
 * @param imageSize Side of its images, in pixels.
 * @param cropFraction Part of a photo's shorter side that it is to see.
 * @param turn Whether photos are turned as their EXIF says.
 */
class ModelDescription(val imageSize: Int, val cropFraction: Double, val turn: Boolean) {
    /** Cuts out the square that the model sees, in its size or another. */
    fun pixelsOf(photo: Photo, size: Int = imageSize) = evaluationPixels(photo, size, cropFraction)

    companion object {
        /** Reads the text of `model.json`. */
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
