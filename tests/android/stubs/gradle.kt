/** What the build files say in Gradle's language, as far as they do. */

import org.jetbrains.kotlin.gradle.dsl.JvmTarget

enum class JavaVersion { VERSION_17 }

class Plugin {
    infix fun version(version: String): Plugin = TODO(version)

    infix fun apply(apply: Boolean): Plugin = TODO("$apply")
}

class Plugins {
    fun id(id: String): Plugin = TODO(id)
}

class Repositories {
    fun google(): Unit = TODO()

    fun mavenCentral(): Unit = TODO()

    fun gradlePluginPortal(): Unit = TODO()
}

class RepositoryHolder {
    fun repositories(block: Repositories.() -> Unit): Unit = TODO("$block")
}

class RootProject {
    var name = ""
}

class DefaultConfig {
    var applicationId: String? = null
    var minSdk: Int? = null
    var targetSdk: Int? = null
    var versionCode: Int? = null
    var versionName: String? = null
}

class CompileOptions {
    var sourceCompatibility = JavaVersion.VERSION_17
    var targetCompatibility = JavaVersion.VERSION_17
}

class AndroidResources {
    val noCompress = mutableListOf<String>()
}

class Android {
    var namespace: String? = null
    var compileSdk: Int? = null

    fun defaultConfig(block: DefaultConfig.() -> Unit): Unit = TODO("$block")

    fun compileOptions(block: CompileOptions.() -> Unit): Unit = TODO("$block")

    fun androidResources(block: AndroidResources.() -> Unit): Unit = TODO("$block")
}

class CompilerOptions {
    var jvmTarget = JvmTarget.JVM_17
}

class KotlinExtension {
    fun compilerOptions(block: CompilerOptions.() -> Unit): Unit = TODO("$block")
}

class Dependencies {
    fun implementation(dependency: String): Unit = TODO(dependency)

    fun testImplementation(dependency: String): Unit = TODO(dependency)
}

val rootProject = RootProject()

fun plugins(block: Plugins.() -> Unit): Unit = TODO("$block")

fun pluginManagement(block: RepositoryHolder.() -> Unit): Unit = TODO("$block")

fun dependencyResolutionManagement(block: RepositoryHolder.() -> Unit): Unit = TODO("$block")

fun include(project: String): Unit = TODO(project)

fun android(block: Android.() -> Unit): Unit = TODO("$block")

fun kotlin(block: KotlinExtension.() -> Unit): Unit = TODO("$block")

fun dependencies(block: Dependencies.() -> Unit): Unit = TODO("$block")
