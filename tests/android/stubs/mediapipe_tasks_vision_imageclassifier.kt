package com.google.mediapipe.tasks.vision.imageclassifier

import android.content.Context
import com.google.mediapipe.framework.image.MPImage
import com.google.mediapipe.tasks.components.containers.ClassificationResult
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.BaseVisionTaskApi
import com.google.mediapipe.tasks.vision.core.RunningMode

abstract class ImageClassifierResult {
    abstract fun classificationResult(): ClassificationResult
}

class ImageClassifier private constructor() : BaseVisionTaskApi() {
    fun classify(image: MPImage): ImageClassifierResult = TODO("$image")

    abstract class ImageClassifierOptions {
        abstract class Builder {
            abstract fun setBaseOptions(baseOptions: BaseOptions): Builder

            abstract fun setRunningMode(runningMode: RunningMode): Builder

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
