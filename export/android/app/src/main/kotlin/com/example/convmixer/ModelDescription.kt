package com.example.convmixer

import org.json.JSONObject

/**
 * What `model.json` says of the model.
 *
 * @param imageSize Side of its images, in pixels.
 * @param cropFraction Part of a photo's shorter side that it is to see.
 */
class ModelDescription(
    val name: String,
    val description: String,
    val imageSize: Int,
    val cropFraction: Double,
) {
    companion object {
        /** Reads the text of `model.json`. */
        fun parse(text: String): ModelDescription {
            val json = JSONObject(text)
            return ModelDescription(
                json.getString("name"),
                json.getString("description"),
                json.getInt("image_size"),
                json.getDouble("crop_fraction"),
            )
        }
    }
}
