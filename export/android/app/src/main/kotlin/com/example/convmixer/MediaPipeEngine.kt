package com.example.convmixer

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.core.Delegate
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier.ImageClassifierOptions

/**
 * The model in MediaPipe's ImageClassifier.
 *
 * MediaPipe reads the names of the classes and the range of the pixels from the
 * file's metadata. It would squeeze a photo to the model's size; one that has
 * that size already it leaves as it is.
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

    override fun classify(pixels: ByteArray): List<Prediction> {
        val bitmap = bitmapOf(pixels, imageSize)
        val result = BitmapImageBuilder(bitmap).build().use { classifier.classify(it) }
        val head = result.classificationResult().classifications().first()
        return head.categories()
            .map { Prediction(it.categoryName(), it.index(), it.score()) }
            .sortedByDescending { it.score }
    }

    override fun close() = classifier.close()
}

private fun optionsFor(processor: Processor): ImageClassifierOptions {
    val delegate = when (processor) {
        Processor.CPU -> Delegate.CPU
        Processor.GPU -> Delegate.GPU
    }
    val base = BaseOptions.builder()
        .setModelAssetPath(MODEL_FILE)
        .setDelegate(delegate)
        .build()
    return ImageClassifierOptions.builder()
        .setBaseOptions(base)
        .setRunningMode(RunningMode.IMAGE)
        .build()
}

/** Makes a square bitmap of red, green and blue bytes. */
fun bitmapOf(pixels: ByteArray, size: Int): Bitmap =
    Bitmap.createBitmap(packedColours(pixels), size, size, Bitmap.Config.ARGB_8888)
