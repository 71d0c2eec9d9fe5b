package com.example.convmixer

import android.app.Application
import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.Looper
import android.os.SystemClock
import androidx.lifecycle.AndroidViewModel
import java.io.FileNotFoundException
import java.io.IOException
import java.util.concurrent.Executors

// Side of the displayed square, in pixels: sharper than the model's input.
private const val SHOWN_SIZE = 480

/**
 * The state of the screen.
 *
 * @param pending The number of requests without an answer.
 * @param photo The part of the photo that the model saw.
 * @param readMilliseconds The time for decoding and cropping the photo.
 * @param error The error of the latest request.
 */
data class State(
    val pending: Int = 0,
    val processor: Processor = Processor.CPU,
    val photo: Bitmap? = null,
    val answer: Answer? = null,
    val readMilliseconds: Long = 0,
    val selfTest: Verdict? = null,
    val gpuFailure: String? = null,
    val error: String? = null,
)

/**
 * Classifies photos on a separate thread.
 *
 * It survives the activity when the phone is rotated.
 */
class ClassifierViewModel(private val app: Application) : AndroidViewModel(app) {
    private val worker = Executors.newSingleThreadExecutor()
    private val mainThread = Handler(Looper.getMainLooper())
    private val assets by lazy { Assets(app) }
    private val classifier = FallbackClassifier { processor ->
        MediaPipeEngine(app, processor, assets.model.imageSize)
    }

    /** Called on the main thread, immediately and after every change. */
    var onChange: ((State) -> Unit)? = null
        set(value) {
            field = value
            value?.invoke(state)
        }

    var state = State()
        private set(value) {
            field = value
            onChange?.invoke(value)
        }

    init {
        selfTest()
    }

    /** Runs the self-test and all later requests on a processor. */
    fun use(processor: Processor) {
        if (processor == state.processor) return
        state = state.copy(processor = processor)
        selfTest()
    }

    /** Classifies a photo. */
    fun classify(uri: Uri) = request { processor ->
        val model = assets.model
        val start = SystemClock.elapsedRealtime()
        val photo = try {
            readPhoto(model.turn) {
                app.contentResolver.openInputStream(uri) ?: throw IOException("$uri does not exist")
            }
        } catch (error: Exception) { // Includes revoked access.
            throw Unreadable(error)
        }
        val pixels = model.pixelsOf(photo)
        val read = SystemClock.elapsedRealtime() - start
        val answer = classifier.classify(pixels, processor)
        val shown = bitmapOf(model.pixelsOf(photo, SHOWN_SIZE), SHOWN_SIZE)
        return@request {
            copy(
                photo = shown,
                answer = answer,
                readMilliseconds = read,
                gpuFailure = answer.gpuFailure,
            )
        }
    }

    override fun onCleared() {
        onChange = null
        worker.execute { classifier.close() }
        worker.shutdown()
    }

    private fun selfTest() = request { processor ->
        classifier.retryGpu()
        val pixels = assets.goldenInput()
        // The engine that is used last stays loaded.
        val onCpu = classifier.classify(pixels, Processor.CPU)
        val answer = when (processor) {
            Processor.CPU -> onCpu
            else -> classifier.classify(pixels, processor)
        }
        val verdict = assets.golden.judge(pixels, assets.goldenPixels(), answer, onCpu)
        return@request { copy(selfTest = verdict, gpuFailure = answer.gpuFailure) }
    }

    /** Runs work on the other thread and shows its result. */
    private fun request(work: (Processor) -> State.() -> State) {
        state = state.copy(pending = state.pending + 1, error = null)
        val processor = state.processor
        worker.execute {
            val change = try {
                work(processor)
            } catch (error: Throwable) { // Includes missing libraries or memory.
                failed(error)
            }
            mainThread.post { state = state.change().copy(pending = state.pending - 1) }
        }
    }

    private fun failed(error: Throwable): State.() -> State {
        val text = when (error) {
            is Unreadable -> app.getString(R.string.unreadable, error.message)
            is OutOfMemoryError -> app.getString(R.string.out_of_memory)
            is FileNotFoundException -> app.getString(R.string.no_model, error.message)
            else -> app.getString(R.string.failed, error.message ?: error.toString())
        }
        return { copy(error = text) }
    }

    private class Unreadable(cause: Exception) : Exception(cause.message ?: "$cause", cause)
}
