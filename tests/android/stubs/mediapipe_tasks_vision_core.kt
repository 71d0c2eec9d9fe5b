package com.google.mediapipe.tasks.vision.core

enum class RunningMode { IMAGE, VIDEO, LIVE_STREAM }

open class BaseVisionTaskApi : AutoCloseable {
    override fun close(): Unit = TODO()
}
