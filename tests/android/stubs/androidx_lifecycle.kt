package androidx.lifecycle

import android.app.Application

abstract class ViewModel {
    protected open fun onCleared(): Unit = TODO()
}

open class AndroidViewModel(private val application: Application) : ViewModel() {
    open fun <T : Application> getApplication(): T = TODO("$application")
}

interface ViewModelStoreOwner

open class ViewModelProvider(private val owner: ViewModelStoreOwner) {
    operator fun <T : ViewModel> get(modelClass: Class<T>): T = TODO("$owner $modelClass")
}
