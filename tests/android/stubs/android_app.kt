package android.app

import android.content.Context
import android.os.Bundle
import android.view.LayoutInflater
import android.view.View

open class Application : Context()

open class Activity : Context() {
    val layoutInflater: LayoutInflater get() = TODO()

    protected open fun onCreate(savedInstanceState: Bundle?): Unit = TODO()

    protected open fun onStart(): Unit = TODO()

    protected open fun onStop(): Unit = TODO()

    open fun setContentView(layoutResID: Int): Unit = TODO()

    fun <T : View> findViewById(id: Int): T = TODO("$id")
}
