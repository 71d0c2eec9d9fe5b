package android.os

class Bundle

class Looper private constructor() {
    companion object {
        fun getMainLooper(): Looper = TODO()
    }
}

class Handler(private val looper: Looper) {
    fun post(r: Runnable): Boolean = TODO("$looper $r")
}

object SystemClock {
    fun elapsedRealtime(): Long = TODO()
}
