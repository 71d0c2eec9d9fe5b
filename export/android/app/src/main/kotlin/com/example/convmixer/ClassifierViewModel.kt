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

// Side of the square shown, in pixels: sharper than what the model gets.
private const val SHOWN_SIZE = 480

/**
 * What the screen shows.
 *
 * @param pending How many requests are not answered yet.
 * @param photo The part of the photo that the model saw.
 * @param readMilliseconds How long it took to decode and cut the photo.
 * @param error What went wrong with the latest request.
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
 * Classifies photos on a thread of its own.
 *
 * It outlives the activity when the phone is turned.
 */
class ClassifierViewModel(private val app: Application) : AndroidViewModel(app) {
    private val worker = Executors.newSingleThreadExecutor()
    private val mainThread = Handler(Looper.getMainLooper())
    private val assets by lazy { Assets(app) }
    private val classifier = FallbackClassifier { processor ->
        MediaPipeEngine(app, processor, assets.model.imageSize)
    }

    /** Called on the main thread, at once and after every change. */
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

    /** Runs the self-test, and all that follows, on a processor. */
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
                app.contentResolver.openInputStream(uri) ?: throw IOException("$uri is gone")
            }
        } catch (error: Exception) { // Also if access to it has ended.
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
        // The engine that stays is the one that is asked last.
        val onCpu = classifier.classify(pixels, Processor.CPU)
        val answer = when (processor) {
            Processor.CPU -> onCpu
            else -> classifier.classify(pixels, processor)
        }
        val verdict = assets.golden.judge(pixels, assets.goldenPixels(), answer, onCpu)
        return@request { copy(selfTest = verdict, gpuFailure = answer.gpuFailure) }
    }

    /** Works on the other thread; the screen shows what comes of it. */
    private fun request(work: (Processor) -> State.() -> State) {
        state = state.copy(pending = state.pending + 1, error = null)
        val processor = state.processor
        worker.execute {
            val change = try {
                work(processor)
            } catch (error: Throwable) { // Also libraries or memory that are missing.
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
