package com.example.convmixer

import android.content.ActivityNotFoundException
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.Switch
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts.PickVisualMedia
import androidx.activity.result.contract.ActivityResultContracts.TakePicture
import androidx.core.content.FileProvider
import androidx.lifecycle.ViewModelProvider
import java.io.File
import kotlin.math.roundToInt

private const val TOP = 5

/** The only screen: a photo, its top classes and the self-test. */
class MainActivity : ComponentActivity() {
    private lateinit var model: ClassifierViewModel

    private val picker = registerForActivityResult(PickVisualMedia()) { photo ->
        if (photo != null) model.classify(photo)
    }

    private val camera = registerForActivityResult(TakePicture()) { taken ->
        if (taken) model.classify(cameraPhoto())
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        model = ViewModelProvider(this)[ClassifierViewModel::class.java]
        findViewById<Button>(R.id.choose_photo).setOnClickListener {
            picker.launch(
                PickVisualMediaRequest.Builder().setMediaType(PickVisualMedia.ImageOnly).build(),
            )
        }
        findViewById<Button>(R.id.take_photo).setOnClickListener { takePhoto() }
        val gpu = findViewById<Switch>(R.id.use_gpu)
        gpu.isChecked = model.state.processor == Processor.GPU
        gpu.setOnCheckedChangeListener { _, checked ->
            model.use(if (checked) Processor.GPU else Processor.CPU)
        }
    }

    override fun onStart() {
        super.onStart()
        model.onChange = ::show
    }

    override fun onStop() {
        model.onChange = null
        super.onStop()
    }

    private fun takePhoto() {
        try {
            camera.launch(cameraPhoto())
        } catch (_: ActivityNotFoundException) {
            findViewById<TextView>(R.id.message).setText(R.string.no_camera)
        }
    }

    /** The file for the camera's photo, always the same. */
    private fun cameraPhoto(): Uri {
        val folder = File(cacheDir, "photos")
        folder.mkdirs()
        return FileProvider.getUriForFile(this, "$packageName.files", File(folder, "photo.jpg"))
    }

    private fun show(state: State) {
        for (button in listOf(R.id.choose_photo, R.id.take_photo, R.id.use_gpu)) {
            findViewById<View>(button).isEnabled = state.pending == 0
        }
        val photo = findViewById<ImageView>(R.id.photo)
        photo.setImageBitmap(state.photo)
        photo.visibility = if (state.photo == null) View.GONE else View.VISIBLE
        findViewById<TextView>(R.id.message).text = message(state)
        findViewById<TextView>(R.id.self_test).text = state.selfTest?.let(::report).orEmpty()
        showPredictions(state.answer?.predictions.orEmpty())
    }

    private fun message(state: State): String {
        if (state.pending > 0) return getString(R.string.working)
        if (state.error != null) return state.error
        val times = state.answer?.let {
            getString(R.string.times, state.readMilliseconds, it.milliseconds, it.processor.name)
        }
        val failure = state.gpuFailure?.let { getString(R.string.gpu_failed, it) }
        return listOfNotNull(times, failure).joinToString("\n")
    }

    private fun report(verdict: Verdict): String {
        val result = getString(
            R.string.self_test,
            verdict.processor.name,
            getString(if (verdict.passed) R.string.passed else R.string.not_passed),
            verdict.pixelDifference,
            verdict.scoreDifference,
            verdict.best,
            verdict.expectedBest,
        )
        if (!verdict.sameAsCpu) return result
        return result + "\n" + getString(R.string.same_as_cpu, verdict.processor.name)
    }

    private fun showPredictions(predictions: List<Prediction>) {
        val list = findViewById<LinearLayout>(R.id.predictions)
        list.removeAllViews()
        for (prediction in predictions.take(TOP)) {
            val row = layoutInflater.inflate(R.layout.prediction, list, false)
            row.findViewById<TextView>(R.id.class_name).text = prediction.className
            row.findViewById<TextView>(R.id.score).text =
                getString(R.string.percent, 100 * prediction.score)
            val bar = row.findViewById<ProgressBar>(R.id.bar)
            bar.progress = (bar.max * prediction.score).roundToInt()
            list.addView(row)
        }
    }
}
