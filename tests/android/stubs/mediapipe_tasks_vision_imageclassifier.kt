package com.google.mediapipe.tasks.vision.imageclassifier

import android.content.Context
import com.google.mediapipe.framework.image.MPImage
import com.google.mediapipe.tasks.components.containers.ClassificationResult
import com.google.mediapipe.tasks.core.BaseOptions

abstract class ImageClassifierResult {
    abstract fun classificationResult(): ClassificationResult
}

class ImageClassifier private constructor() : AutoCloseable {
    override fun close(): Unit = TODO()

    fun classify(image: MPImage): ImageClassifierResult = TODO("$image")

    abstract class ImageClassifierOptions {
        abstract class Builder {
            abstract fun setBaseOptions(baseOptions: BaseOptions): Builder

            fun build(): ImageClassifierOptions = TODO()
        }

        companion object {
            fun builder(): Builder = TODO()
        }
    }

    companion object {
        fun createFromOptions(context: Context, options: ImageClassifierOptions): ImageClassifier =
            TODO("$context $options")
    }
}
