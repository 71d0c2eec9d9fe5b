package com.google.mediapipe.framework.image

import android.graphics.Bitmap
import java.io.Closeable

class MPImage private constructor() : Closeable {
    override fun close(): Unit = TODO()
}

class BitmapImageBuilder(private val bitmap: Bitmap) {
    fun build(): MPImage = TODO("$bitmap")
}
