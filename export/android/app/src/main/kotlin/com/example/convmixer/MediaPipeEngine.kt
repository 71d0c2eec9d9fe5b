package com.example.convmixer

import android.content.Context
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.core.Delegate
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier.ImageClassifierOptions

/**
 * The model in MediaPipe's ImageClassifier.
 *
 * MediaPipe reads the class names and the pixel range from the file's metadata
 * and sorts the classes. It would distort a photo to the model's size, but does
 * not change one that already has that size.
 *
 * @param imageSize Side of the model's images, in pixels.
 * @throws RuntimeException If the processor can't run the model.
 */
class MediaPipeEngine(
    context: Context,
    processor: Processor,
    private val imageSize: Int,
) : Engine {
    private val classifier = ImageClassifier.createFromOptions(context, optionsFor(processor))

    override fun classify(pixels: IntArray): List<Prediction> {
        val image = BitmapImageBuilder(bitmapOf(pixels, imageSize)).build()
        val result = image.use { classifier.classify(it).classificationResult() }
        val categories = result.classifications().first().categories()
        return withOpposite(
            categories.map { Prediction(it.categoryName(), it.index(), it.score()) },
        )
    }

    override fun close() = classifier.close()
}

private fun optionsFor(processor: Processor): ImageClassifierOptions {
    val base = BaseOptions.builder()
        .setModelAssetPath(MODEL_FILE)
        .setDelegate(if (processor == Processor.GPU) Delegate.GPU else Delegate.CPU)
        .build()
    return ImageClassifierOptions.builder().setBaseOptions(base).build()
}
