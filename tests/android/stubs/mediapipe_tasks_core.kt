package com.google.mediapipe.tasks.core

enum class Delegate { CPU, GPU }

abstract class BaseOptions {
    abstract class Builder {
        abstract fun setModelAssetPath(value: String): Builder

        abstract fun setDelegate(delegate: Delegate): Builder

        fun build(): BaseOptions = TODO()
    }

    companion object {
        fun builder(): Builder = TODO()
    }
}
